"""Merges that keep entries at random: laws of masks, masks read off, what they say of the settings, and all of it beside something unknown."""

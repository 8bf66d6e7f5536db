"""Commands that the entry points ``unmerge.commands`` give to the command line of unmerge."""

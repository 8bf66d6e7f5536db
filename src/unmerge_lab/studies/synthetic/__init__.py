"""Models with real shapes and realistic statistics, so that real sizes can be measured without weights or a download."""

"""Where packets come from: files, pipes and, live, the vsockmon interface."""

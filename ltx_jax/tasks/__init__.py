"""What the command and the Python API do, one file a task."""

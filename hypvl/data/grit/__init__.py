"""GRIT: preparing its TAR files, boxes and phrases, and the mapper that reads them."""

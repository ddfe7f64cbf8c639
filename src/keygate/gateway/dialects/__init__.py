"""Wire dialects: how a body is read, its usage found, its refusals worded."""

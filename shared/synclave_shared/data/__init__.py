"""Patient data: the public schema, readers that explain each fault, and the wide patient table."""

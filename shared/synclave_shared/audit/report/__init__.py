"""The report of an audit: a page for people, and the same numbers as JSON for programs."""

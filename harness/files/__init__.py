"""Files of users and strangers: limited reads, atomic writes, and kinds known by content."""

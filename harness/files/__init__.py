"""Files of users and strangers: read with limits, written whole, told apart by their content."""

"""What runs have found, as a page, as Markdown, and as JUnit's XML."""

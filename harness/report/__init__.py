"""Reports of runs as an HTML page, as Markdown, and as JUnit XML."""

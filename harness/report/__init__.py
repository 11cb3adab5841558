"""Reports of ``check``, ``bench`` and ``train``, as an HTML page, as Markdown, and as JUnit XML."""

"""Reports of the results of ``check``, ``bench`` and ``train``: as an HTML page, as Markdown, or as
JUnit XML."""

"""The harness's checks as a pytest suite, for authors of backends.

``pytest --pyargs harness.suite --backend NAME`` runs one test for each spec, dtype and check.
"""

"""Checks as a pytest suite, for authors of backends.

``pytest --pyargs harness.suite --backend NAME`` has one test for each spec, dtype and check.
"""

"""The checks as a pytest suite, for whoever writes a backend.

``pytest --pyargs harness.suite --backend NAME`` has one test for each spec, dtype and check. See
:mod:`harness.suite.plugin` for the options.
"""

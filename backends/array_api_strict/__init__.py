"""The backend ``array-api-strict``, which runs functions of the Python array API standard only."""

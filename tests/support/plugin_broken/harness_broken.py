"""A plugin whose library is not installed; only users of this plugin may notice."""

raise ImportError("libcolumns.so.7: cannot open shared object file")

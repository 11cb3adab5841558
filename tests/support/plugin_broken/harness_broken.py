"""A plugin whose library is not there: it must hurt nobody but those who ask for it."""

raise ImportError("libcolumns.so.7: cannot open shared object file")

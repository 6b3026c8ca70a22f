"""Clinical notes: their schema, their readers, and the data set of which one item is one patient."""

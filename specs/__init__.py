"""Model, layer, function, loss and optimizer definitions: data only."""

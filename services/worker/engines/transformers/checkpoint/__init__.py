"""From a folder or a hub id to a model that is ready to run, and proven to be."""

"""docs/openapi.yaml: the REST API as the protos and docs/openapi/ say it."""

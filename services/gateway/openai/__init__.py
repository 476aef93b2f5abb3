"""OpenAI's API over the mesh: requests in, its exact JSON out. Envoy speaks HTTP for it."""

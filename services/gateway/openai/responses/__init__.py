"""/v1/responses: answers to conversations that the server may keep."""

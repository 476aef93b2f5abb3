"""POST /tokenize and /detokenize, as vLLM has them, and /api/v1/token_check, as FastChat has it."""

"""Between text and tokens: prompts in, output out."""

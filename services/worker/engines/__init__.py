"""The engines. Each stands in its own module and is imported only when it is chosen."""

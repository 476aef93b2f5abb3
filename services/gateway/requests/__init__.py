"""What clients may ask: every range and every form, with the field named."""

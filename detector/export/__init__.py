"""All that is made from a finished Reading."""

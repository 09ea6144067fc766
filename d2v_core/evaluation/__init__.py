"""From logits to answers, and from a frozen encoder to features."""

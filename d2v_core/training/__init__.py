"""One loop for pretraining and fine-tuning, its optimizer, its monitors and its checkpoints."""

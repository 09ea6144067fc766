"""The networks: one transformer, the student and its teacher, the targets and the heads. No modality is named here."""

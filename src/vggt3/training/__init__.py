"""Learning: the LightningModule, its data, and what happens around a run."""

"""Models, losses, metrics, the training loop, bundles and the registry. Knows nothing of Ray or HTTP."""

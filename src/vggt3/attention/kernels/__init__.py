"""Kernels that compute a backend's equations faster; each says why it cannot run here."""

"""Networks: MMDiT, autoencoder, condition encoder. Import the modules directly: they need torch."""

"""What makes the inner loop fast: flat weights, fused networks, staged examples."""

"""What one chapter of the book alone uses: toys, planted nuisances, yardsticks, its figures."""

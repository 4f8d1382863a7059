"""The commands of ``impact-plugin``, one module each."""

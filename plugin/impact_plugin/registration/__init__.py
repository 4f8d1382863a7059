"""How routers learn about the plugin: files generated from the manifest, and guides to their forms."""

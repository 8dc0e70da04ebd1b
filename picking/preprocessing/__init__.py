"""From annotations and image sizes to what lies where in a store."""

"""What can be put under load: each module opens connections and makes functions that ask once."""

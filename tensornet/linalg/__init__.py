"""Matrix building blocks whose gradients stay finite when singular values repeat."""

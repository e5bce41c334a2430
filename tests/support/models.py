"""Models of random weights, which are there at once and find nonsense, but always the same."""

from biounet.core.recipe import parse_recipe
from biounet.network import Card, Model, build_network, initialise_weights, output_channels, save_model


def save_class_model(path, classes=("core", "rim")):
    """Write a model of classes in volumes of one channel."""
    data = {"dims": 3, "kind": "classes", "classes": list(classes), "min_lesion_mm3": 0}
    recipe = parse_recipe({"data": data, "network": {"widths": [4, 4]}})
    network = build_network(recipe)
    initialise_weights(network, 0)
    card = Card(recipe=recipe, inputs=("intensity",), outputs=output_channels(recipe))
    save_model(Model(network.eval(), card), path)

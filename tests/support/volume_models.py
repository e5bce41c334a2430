"""Small models of volumes whose weights are random: what they find is nonsense, and always the same."""


def save_random_model(path, channels, classes=("oedema", "necrosis"), **data):
    """Write a model of classes in volumes."""
    from biounet.core.recipe import parse_recipe
    from biounet.network import Card, Model, build_network, initialise_weights, output_channels, save_model

    data = {"kind": "classes", "dims": 3, "classes": list(classes), "channels": list(channels), **data}
    recipe = parse_recipe({"data": data, "network": {"widths": [4, 4]}, "train": {"patch": 16}})
    network = build_network(recipe)
    initialise_weights(network, 2)
    save_model(Model(network.eval(), Card(recipe=recipe, inputs=channels, outputs=output_channels(recipe))), path)

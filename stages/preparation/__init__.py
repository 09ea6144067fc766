"""How the stage ``prepare`` works: items are cut into shards, shards are made by workers, finished ones are kept.

``cuts`` says which items share a shard, ``identity`` names a shard by everything that its bytes depend on, ``shards``
makes one, ``careful`` survives codecs that crash, ``store`` keeps what is finished, ``executors`` spreads the work
over processes or machines, ``accounts`` checks that nothing was lost.
"""

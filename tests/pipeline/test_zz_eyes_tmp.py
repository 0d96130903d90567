import time, pytest
from confluent_kafka import Producer
from tests.pipeline.kafka_side import Side, WorkerProcess, wait_until
from tests.pipeline.world import World
@pytest.mark.broker
def test_tx(kafka, tmp_path):
    world = World(tmp_path, {"hall-a": 0}, 3, 1); side = Side(kafka.bootstrap, world, 1)
    worker = WorkerProcess(side, f"{side.prefix}-w", tmp_path / "worker.log")
    wait_until(lambda: sum(side.ends(side.topics.reports)) >= 1, "control"); time.sleep(1)
    p = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": "tx-1"}); p.init_transactions(20)
    p.begin_transaction(); p.produce(side.topics.reports, b"x", partition=0); p.flush(); p.commit_transaction(20)
    t0=time.time()
    while time.time()-t0 < 75 and worker.alive(): time.sleep(0.5)
    print("alive", worker.alive(), time.time()-t0, (tmp_path/"worker.log").read_text()[-900:])
    worker.stop() if worker.alive() else None

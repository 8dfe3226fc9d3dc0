#!/usr/bin/env bash
# Apache Kafka in the place of `riverrun dev`, for testing the tests:
#   RIVERRUN_TEST_NODE=$PWD/tests/process/kafka-node.sh cargo test -p riverrun-tools --test process
# Takes `dev --data DIR --kafka HOST:PORT`, keeps its settings beside DIR, and becomes the broker,
# so that signals reach it. Its jars come from Maven Central on first use. Needs a JDK and Maven.
set -euo pipefail
version=${KAFKA_VERSION:-4.4.0}
jars=${KAFKA_JARS:-${XDG_CACHE_HOME:-$HOME/.cache}/riverrun-kafka-$version}
data= listen=
while [ $# -gt 0 ]; do
  case $1 in
  dev) shift ;;
  --data) data=$2; shift 2 ;;
  --kafka) listen=$2; shift 2 ;;
  *) echo "unknown argument: $1" >&2; exit 2 ;;
  esac
done
if [ ! -f "$jars/complete" ]; then
  mkdir -p "$jars"
  cat > "$jars/pom.xml" <<X
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>riverrun</groupId><artifactId>kafka-for-tests</artifactId><version>1</version><packaging>pom</packaging><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency></dependencies></project>
X
  mvn -q -B -f "$jars/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars" >&2
  touch "$jars/complete"
fi
settings=$(dirname "$data")/kafka.properties
port=${listen##*:}
if [ ! -f "$settings" ]; then
  cat > "$settings" <<X
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 20000))
listeners=PLAINTEXT://$listen,CONTROLLER://127.0.0.1:$((port + 20000))
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$data
offsets.topic.replication.factor=1
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
X
  java -Xmx128m -cp "$jars/*" kafka.tools.StorageTool format -t Y2x1c3RlcmNsdXN0ZXJjbA -c "$settings" >&2
fi
echo "listening on kafka://$listen"
exec java -Xms512m -Xmx512m -XX:TieredStopAtLevel=1 -cp "$jars/*" kafka.Kafka "$settings"

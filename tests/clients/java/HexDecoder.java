import org.apache.kafka.tools.api.Decoder;

import java.util.HexFormat;

/** Lets Kafka's dump tool print keys and values so that no byte is lost or mistaken for another. */
public final class HexDecoder implements Decoder<String> {
    @Override
    public String fromBytes(byte[] bytes) {
        return bytes == null ? "-" : "x" + HexFormat.of().formatHex(bytes);
    }
}

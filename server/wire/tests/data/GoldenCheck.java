// Puts lines of "message version hex" before Kafka's own message classes: each body (there may be
// several behind one another) must be read to its end and written again to the byte. Run with
// kafka-clients and slf4j-api on the class path:
//   java -cp kafka-clients-4.4.0.jar:slf4j-api-1.7.36.jar GoldenCheck.java FILE
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HexFormat;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.ObjectSerializationCache;

public class GoldenCheck {
    public static void main(String[] arguments) throws Exception {
        int good = 0;
        int bad = 0;
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            if (line.startsWith("#")) {
                continue;
            }
            String[] parts = line.split(" ", -1);
            try {
                for (int i = 2; i < parts.length; i++) {
                    check(parts[0], Short.parseShort(parts[1]), HexFormat.of().parseHex(parts[i]));
                }
                good++;
            } catch (Exception e) {
                bad++;
                System.out.println(parts[0] + " " + parts[1] + ": " + e);
            }
        }
        System.out.println(good + " agree, " + bad + " do not");
        System.exit(bad == 0 ? 0 : 1);
    }

    private static void check(String name, short version, byte[] bytes) throws Exception {
        Class<?> type = Class.forName("org.apache.kafka.common.message." + name + "Data");
        ApiMessage message = (ApiMessage) type.getConstructor().newInstance();
        ByteBuffer input = ByteBuffer.wrap(bytes);
        message.read(new ByteBufferAccessor(input), version);
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer output = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(output), cache, version);
        if (input.hasRemaining() || !Arrays.equals(output.array(), bytes)) {
            throw new IllegalStateException("the bytes differ");
        }
    }
}

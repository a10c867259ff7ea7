/** Every generated file of the repository, as path → content. `npm run gen` writes them, the tidy test compares them. */
import { configReference } from '#/agent/config/reference.ts';
import { casesFile } from '#/test/tidy/cases.ts';
import type { SourceFile } from '#/test/tidy/source.ts';
import { agentCliPage } from './agent-cli.ts';
import { apiPage } from './api.ts';
import { cliPage } from './cli.ts';
import { definitionPage } from './definition.ts';
import { errorsPage } from './errors.ts';
import { metricsPage } from './metrics.ts';
import { openApiText } from './openapi.ts';

/** `files`: the tree as it stands; some pages are made from the titles and tables in it. */
export async function generatedFiles(
  files: readonly SourceFile[],
): Promise<ReadonlyMap<string, string>> {
  const hasProtocolSpec = files.some((file) => file.path === 'docs/specs/protocol.md');
  return new Map([
    ['docs/reference/errors.md', errorsPage()],
    ['docs/reference/cli.md', cliPage()],
    ['docs/reference/agent-cli.md', agentCliPage()],
    ['docs/reference/config.md', configReference()],
    ['docs/reference/release-definition.md', definitionPage()],
    ['docs/reference/metrics.md', metricsPage()],
    ['protocol/openapi.json', openApiText()],
    ['docs/reference/api.md', apiPage(hasProtocolSpec)],
    ['test/cases.json', casesFile(files)],
  ]);
}

// SPDX-License-Identifier: Apache-2.0
// Says of requests, a JSON object a line, whether a policy of Amazon's allows them. The evaluation is
// another project's: iam-simulate. Arguments: the file of the policy, and the bucket's name.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const installed = createRequire(process.cwd() + '/')
const place = pathToFileURL(installed.resolve('@cloud-copilot/iam-simulate'))
const { runSimulation } = await import(place)

const accountId = '123456789012'
const text = readFileSync(process.argv[2], 'utf8')
const policy = JSON.parse(text.replaceAll('BUCKET', process.argv[3]))

for await (const line of createInterface({ input: process.stdin })) {
  const { action, resource, context } = JSON.parse(line)
  const answer = await runSimulation(
    {
      identityPolicies: [{ name: 'append-only', policy }],
      serviceControlPolicies: [],
      resourceControlPolicies: [],
      request: {
        principal: `arn:aws:iam::${accountId}:user/agent`,
        action,
        resource: { resource, accountId },
        contextVariables: context
      }
    },
    {}
  )
  console.log(JSON.stringify(answer.overallResult ?? JSON.stringify(answer)))
}
